-- What a trainer reads: every clip in order with its video, frames and caption
SELECT sequence_id, clip_index, video_path, num_frames, caption
FROM clips
ORDER BY sequence_id, clip_index
LIMIT 100;
