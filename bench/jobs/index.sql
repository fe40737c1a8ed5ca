-- SPDX-License-Identifier: Apache-2.0
-- As many sales as size.rows says, of customers who buy some days in a row: an index of them, a join that follows it to
-- a tenth of the rows, and a report of all. A fifth of a note is noise.
PRAGMA temp_store = MEMORY;
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, class INTEGER);
CREATE TABLE sale(day INTEGER, customer INTEGER, amount INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n, size WHERE i < rows / 10)
INSERT INTO customer SELECT i, 'customer ' || (i * 7919 % 99991), i * 31 % 20 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n, size WHERE i < rows)
INSERT INTO sale SELECT i / 1000, 1 + (i / 20 + (i * 2654435761 >> 16) % 50) % (rows / 10), i * 37 % 1000,
  printf('sale number %d, paid by card and delivered to the front door on the same day; %08x%08x%08x', i,
         i * 2654435761 & 0xffffffff, i * 2246822519 & 0xffffffff, i * 3266489917 & 0xffffffff) FROM n, size;
CREATE INDEX sale_customer ON sale(customer, amount);
SELECT class, count(*), sum(amount), min(note) FROM customer JOIN sale ON customer = id WHERE class < 2 GROUP BY class;
SELECT day / 100, count(*), sum(amount), max(note) FROM sale GROUP BY day / 100;
