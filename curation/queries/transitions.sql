-- Boundaries of shots by type, and how sure they are
SELECT transition_in AS boundary, count(*) AS number, round(min(confidence), 2) AS least_sure,
  round(avg(confidence), 2) AS mean_confidence
FROM shots
GROUP BY transition_in
ORDER BY number DESC, boundary;
