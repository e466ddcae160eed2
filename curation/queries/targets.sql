-- Reconstruction targets: picture, clip, frame in it, and caption
WITH first_targets AS (SELECT * FROM recon_targets ORDER BY recon_id LIMIT 100)
SELECT r.image_path, c.video_path, r.frame_in_clip_16fps AS frame, s.label,
  round(100 * r.area_share, 1) AS percent_of_picture, r.caption
FROM first_targets r
JOIN clips c USING (clip_id)
JOIN subjects s USING (subject_id)
ORDER BY r.recon_id;
