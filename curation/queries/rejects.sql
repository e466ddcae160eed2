-- Why things were not kept: number and seconds by grain, stage and reason, with one example
SELECT grain, status, stage, reason, count(*) AS number, round(sum(end_s - start_s), 1) AS seconds,
  min(detail) AS example
FROM rejects
GROUP BY ALL
ORDER BY grain, number DESC, stage, reason;
