-- The longest clips and the subjects that are in them
WITH longest AS (
  SELECT clip_id, sequence_id, clip_index, duration_s, video_path, caption
  FROM clips ORDER BY duration_s DESC, clip_id LIMIT 50
)
SELECT round(duration_s, 2) AS seconds,
  list(label ORDER BY label) FILTER (list_contains(clip_indices, clip_index)) AS subjects,
  video_path, caption
FROM longest LEFT JOIN subjects USING (sequence_id)
GROUP BY ALL
ORDER BY seconds DESC, video_path;
