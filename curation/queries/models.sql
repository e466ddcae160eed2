-- Which models made the kept sequences
SELECT m.part, m.tier, m.backend, m.model_id, m.revision, count(*) AS sequences
FROM (SELECT unnest(models) AS m FROM sequences WHERE status = 'kept')
GROUP BY ALL
ORDER BY m.part, sequences DESC, m.model_id;
