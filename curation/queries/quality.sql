-- Kept sequences from sharpest to softest, with their other scores
SELECT sequence_id, num_clips AS clips, round(duration_s, 1) AS seconds, round(sharpness) AS sharpness,
  round(luma_mean) AS luma, round(contrast) AS contrast, round(motion, 1) AS motion,
  round(shake, 4) AS shake, round(flicker, 2) AS flicker, round(aesthetic, 2) AS aesthetic
FROM sequences
WHERE status = 'kept'
ORDER BY sharpness DESC NULLS LAST, sequence_id
LIMIT 50;
