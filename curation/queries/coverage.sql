-- Where the seconds of each film went: share in clips, and the largest reasons against
WITH spans AS (
  SELECT film_id, coalesce(reason, 'in clips') AS reason, sum(end_s - start_s) AS seconds
  FROM coverage GROUP BY ALL
), films_once AS (
  SELECT film_id, arg_min(path, num_shots IS NULL) AS path FROM films WHERE film_id IS NOT NULL GROUP BY film_id
)
SELECT parse_filename(path) AS film, round(sum(seconds), 1) AS seconds,
  round(100 * coalesce(sum(seconds) FILTER (reason = 'in clips'), 0) / sum(seconds), 1) AS percent_in_clips,
  list(reason || ' ' || round(seconds, 1) || ' s' ORDER BY seconds DESC, reason)
    FILTER (reason <> 'in clips')[:4] AS not_used
FROM spans JOIN films_once USING (film_id)
GROUP BY film_id, path
ORDER BY percent_in_clips DESC, film
LIMIT 100;
