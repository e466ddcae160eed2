-- Rows for perf/queries.py: a set of `clips` clips, and everything else in proportion, as one view per table.
-- Per film 120 packed sequences; one in six of them rejected; 10 clips, 3 subjects and 2 targets per kept one;
-- 25 shots per packed one, a quarter of them unusable. Tracks are thin: 10 boxes per subject.

CREATE MACRO packed() AS getvariable('clips') // 10 * 6 // 5;
CREATE MACRO film_of(q) AS printf('f%015x', q // 120);
CREATE MACRO sequence_of(q) AS
  printf('f%015x-q%d-%d', q // 120, (q % 120) * 600000, (q % 120) * 600000 + 540000);
CREATE MACRO shot_of(q, i) AS printf('f%015x-s%d', q // 120, i);
CREATE MACRO start_of(q) AS (q % 120) * 600.0;
CREATE MACRO kept(q) AS q % 6 <> 5;
CREATE MACRO noise(seed, scale) AS (hash(seed) % 1000003)::DOUBLE / 1000003 * scale;
CREATE MACRO pick(seed, list) AS list[1 + (hash(seed) % len(list))::BIGINT];
CREATE MACRO licence_of(q) AS pick(q // 120, ['CC-BY-3.0', 'CC0', 'not stated']);
CREATE MACRO vocabulary() AS [
  'a', 'the', 'woman', 'man', 'child', 'dog', 'red', 'navy', 'green', 'coat', 'jacket', 'stands', 'walks', 'turns',
  'looks', 'left', 'right', 'towards', 'window', 'door', 'street', 'table', 'kitchen', 'garden', 'rain', 'light',
  'slowly', 'close', 'wide', 'camera', 'follows', 'hand', 'holds', 'cup', 'letter', 'smiles', 'sits', 'rises'];
CREATE MACRO sentence(seed, number) AS array_to_string(
  list_transform(
    range((number - 10 + hash(seed) % 21)::BIGINT), lambda k : pick(seed * 131 + k, vocabulary())), ' ');
CREATE MACRO scores(i) AS {
  luma_mean: noise(i, 255), luma_p90: noise(i + 1, 255), contrast: noise(i + 2, 90), dark_share: noise(i + 3, 1),
  bright_share: noise(i + 4, 1), sharpness: noise(i + 5, 900), motion: noise(i + 6, 60), shake: noise(i + 7, 0.05),
  freeze_share: noise(i + 8, 1), flicker: noise(i + 9, 16), bar_top: (hash(i) % 80)::INT, bar_bottom: 0::INT,
  bar_left: 0::INT, bar_right: 0::INT, corrupt_share: 0.0::DOUBLE};
CREATE MACRO models() AS [
  {part: 'shots', tier: 'embedded', backend: 'scenedetect', model_id: 'adaptive', revision: '0.7', sha256: NULL},
  {part: 'detect', tier: 'embedded', backend: 'opencv', model_id: 'hog', revision: '4.14', sha256: NULL}];
CREATE MACRO fault(i) AS
  CASE WHEN hash(i) % 4 = 0 THEN pick(i + 7, ['too_dark', 'static', 'blurred', 'duplicate']) END;

CREATE VIEW packed_sequence AS SELECT q FROM range(packed()) t(q);
CREATE VIEW kept_clip AS
  SELECT q, c, q * 10 + c AS i FROM packed_sequence, range(10) u(c) WHERE kept(q);
CREATE VIEW kept_subject AS
  SELECT q, p, q * 3 + p AS i FROM packed_sequence, range(3) u(p) WHERE kept(q);
CREATE VIEW shot AS
  SELECT q, n, q * 25 + n AS i, start_of(q) + n * 24.0 AS start_s, start_of(q) + n * 24.0 + 5 + n % 7 AS end_s
  FROM packed_sequence, range(25) u(n);

CREATE VIEW films AS
SELECT printf('f%015x', f) AS film_id, printf('/films/collection/film %d.mp4', f) AS path,
  licence_of(f * 120) AS licence, sha256(f::VARCHAR) AS sha256, 72000.0 AS duration_s, 24.0 AS fps,
  1920 AS width, 1080 AS height, 3000 AS num_shots, 100 AS num_kept_sequences, 54000.0 AS kept_s,
  [{preset: 'paper-table', num_sequences: 120, covered_s: 54000.0, share: 0.75},
   {preset: 'paper-text', num_sequences: 60, covered_s: 27000.0, share: 0.375}] AS preset_coverage,
  models() AS models, 'kept' AS status
FROM range(greatest(1, packed() // 120)) t(f);

CREATE VIEW shots AS
SELECT shot_of(q, i) AS shot_id, film_of(q) AS film_id, i % 3000 AS shot_index, start_s, end_s,
  end_s - start_s AS duration_s, pick(i, ['cut', 'cut', 'cut', 'fade', 'dissolve']) AS transition_in,
  'cut' AS transition_out, noise(i, 1) AS confidence, unnest(scores(i)), fault(i) IS NULL AS usable,
  fault(i) AS reason
FROM shot;

CREATE VIEW sequences AS
SELECT sequence_of(q) AS sequence_id, film_of(q) AS film_id, start_of(q) AS start_s, start_of(q) + 45.9 AS end_s,
  30 + noise(q, 35) AS duration_s, 10 AS num_shots, CASE WHEN kept(q) THEN 10 ELSE 0 END AS num_clips,
  0 AS crop_x, 140 AS crop_y, 1386 AS crop_width, 800 AS crop_height, sentence(q, 90) AS story_caption,
  unnest(scores(q)), models() AS models, 'paper-table' AS preset, licence_of(q) AS licence,
  CASE WHEN kept(q) THEN 'kept' ELSE 'rejected' END AS status,
  CASE WHEN NOT kept(q) THEN 'no_room_for_crop' END AS reason
FROM packed_sequence;

CREATE VIEW clips AS
SELECT sequence_of(q) || printf('-c%02d', c) AS clip_id, sequence_of(q) AS sequence_id, film_of(q) AS film_id,
  shot_of(q, q * 25 + c) AS shot_id, c AS clip_index,
  'clips/' || sequence_of(q) || printf('/%02d.mp4', c) AS video_path, 33 + 4 * (hash(i) % 30) AS num_frames,
  16.0 AS fps, 480 AS height, 832 AS width, (33 + 4 * (hash(i) % 30)) / 16.0 AS duration_s,
  start_of(q) + c * 4.6 AS start_s, start_of(q) + c * 4.6 + 4.6 AS end_s, 'cut' AS transition_in,
  'cut' AS transition_out, sentence(q, 45) AS global_caption, sentence(i, 30) AS shot_caption,
  'global caption: ' || sentence(q, 45) || '; shot caption: ' || sentence(i, 30) AS caption,
  sha256(i::VARCHAR) AS sha256, licence_of(q) AS licence
FROM kept_clip;

CREATE VIEW subjects AS
SELECT sequence_of(q) || printf('-p%02d', p) AS subject_id, sequence_of(q) AS sequence_id, film_of(q) AS film_id,
  printf('[Person %s]', chr(65 + p::INT)) AS label, 'person' AS class_name, sentence(i, 20) AS description,
  p = 0 AS is_primary, noise(i, 40) AS screen_time_s, 4 AS num_clips, [p, p + 2, p + 4, p + 6] AS clip_indices,
  noise(i * 3, 1) AS confidence, ['red', 'navy'] AS colours
FROM kept_subject;

CREATE VIEW tracks AS
SELECT sequence_of(q) || printf('-p%02d', p) AS subject_id, sequence_of(q) AS sequence_id, film_of(q) AS film_id,
  i * 10 + b AS frame, start_of(q) + b AS time_s, noise(i * 10 + b, 1000) AS x, noise(i + b, 500) AS y,
  200.0 AS width, 400.0 AS height, 0.8 AS score
FROM kept_subject, range(10) v(b);

CREATE VIEW recon_targets AS
SELECT sequence_of(q) || printf('-r%02d', p) AS recon_id, sequence_of(q) AS sequence_id, film_of(q) AS film_id,
  sequence_of(q) || '-p00' AS subject_id, sequence_of(q) || printf('-c%02d', p) AS clip_id, p AS clip_index,
  hash(i) % 81 AS frame_in_clip_16fps, noise(i, 0.5) AS area_share,
  'recon/' || sequence_of(q) || printf('-r%02d.png', p) AS image_path, sentence(i, 22) AS caption
FROM kept_subject WHERE p < 2;

CREATE VIEW captions AS
SELECT sequence_of(q) AS sequence_id, film_of(q) AS film_id, n AS call_index,
  CASE WHEN n = 0 THEN 'story' WHEN n < 11 THEN 'shot' ELSE 'recon' END AS stage, 'ok' AS status,
  'describe' AS backend, 'describer' AS model_id, '1' AS revision, sha256(n::VARCHAR) AS prompt_hash,
  CASE WHEN hash(q * 13 + n) % 9 = 0 THEN ['pronoun'] ELSE [] END AS faults
FROM packed_sequence, range(13) u(n) WHERE kept(q);

CREATE VIEW rejects AS
SELECT shot_of(q, i) AS id, 'shot' AS grain, film_of(q) AS film_id, 'filters' AS stage, 'rejected' AS status,
  fault(i) AS reason, printf('score %d below the limit', n) AS detail, start_s, end_s
FROM shot WHERE fault(i) IS NOT NULL
UNION ALL BY NAME
SELECT sequence_of(q) AS id, 'sequence' AS grain, film_of(q) AS film_id, 'crop' AS stage, 'rejected' AS status,
  'no_room_for_crop' AS reason, 'no crop of this aspect is free of text' AS detail, start_of(q) AS start_s,
  start_of(q) + 45.9 AS end_s
FROM packed_sequence WHERE NOT kept(q);

CREATE VIEW coverage AS
SELECT film_of(q) AS film_id, start_s, end_s, CASE WHEN kept(q) AND n < 10 THEN sequence_of(q) END AS used_by,
  CASE WHEN NOT kept(q) THEN 'no_room_for_crop'
    WHEN n >= 10 THEN pick(i, ['too_dark', 'no_window', 'shot_too_short']) END AS reason
FROM shot;
