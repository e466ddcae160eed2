-- What there is: films and sequences by status, clips, seconds, subjects, targets, captions
SELECT 'films ' || status AS what, count(*) AS number, round(sum(duration_s)) AS seconds FROM films GROUP BY status
UNION ALL SELECT 'shots', count(*), round(sum(duration_s)) FROM shots
UNION ALL SELECT 'sequences ' || status, count(*), round(sum(duration_s)) FROM sequences GROUP BY status
UNION ALL SELECT 'clips', count(*), round(sum(end_s - start_s)) FROM clips
UNION ALL SELECT 'subjects', count(*), round(sum(screen_time_s)) FROM subjects
UNION ALL SELECT 'boxes of subjects', count(*), NULL FROM tracks
UNION ALL SELECT 'reconstruction targets', count(*), NULL FROM recon_targets
UNION ALL SELECT 'captions asked for', count(*), NULL FROM captions
ORDER BY what;
