-- SPDX-License-Identifier: Apache-2.0
PRAGMA page_size = 16384;
PRAGMA cache_size = -400000;
PRAGMA temp_store = MEMORY;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, class INTEGER);
CREATE TABLE sale(item INTEGER, amount INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 2000) || ' of the catalogue', i * 31 % 97 FROM n;
CREATE TABLE text AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1600)
SELECT group_concat(printf('%07x', i * 7046029254386353131 & 268435455), '') AS t FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16000)
INSERT INTO sale SELECT 1 + i % 2000, i * 37 % 1000,
  printf('sale number %d paid %0200d %s %03000x', i, i * 104729 % 1000003, substr(t, 1 + i * 37 % 7000, 4000), i) FROM n, text;
CREATE INDEX sale_item ON sale(item, amount);
SELECT class, count(*), sum(amount), max(name), min(note) FROM sale JOIN item ON item.id = sale.item GROUP BY class ORDER BY class;
SELECT name, sum(amount) AS s FROM item JOIN sale ON item = id WHERE class < 10 GROUP BY name ORDER BY s DESC, name LIMIT 50;
