-- What each packing preset would pack of all films together, before later stages reject anything
SELECT p.preset, sum(p.num_sequences) AS sequences, round(sum(p.covered_s), 1) AS seconds,
  round(100 * sum(p.covered_s) / sum(duration_s), 1) AS percent
FROM (SELECT duration_s, unnest(preset_coverage) AS p FROM films)
GROUP BY p.preset
ORDER BY seconds DESC, p.preset;
