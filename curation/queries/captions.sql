-- Captions asked for, by stage and status: tokens, and how often the linter complained
SELECT stage, status, backend, model_id, count(*) AS number, sum(tokens_in) AS tokens_in,
  sum(tokens_out) AS tokens_out, count(*) FILTER (len(faults) > 0) AS with_faults
FROM captions
GROUP BY ALL
ORDER BY stage DESC, number DESC, status;
