-- Clips and seconds by licence of the film
SELECT licence, count(DISTINCT film_id) AS films, count(*) AS clips, round(sum(duration_s), 1) AS seconds
FROM clips
GROUP BY licence
ORDER BY seconds DESC, licence;
