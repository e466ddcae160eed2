-- The subjects longest on screen: description, seconds, and the clips that join them across cuts
SELECT label, class_name, description, round(screen_time_s, 1) AS seconds, num_clips, clip_indices,
  round(confidence, 2) AS confidence, sequence_id
FROM subjects
ORDER BY screen_time_s DESC, subject_id
LIMIT 50;
