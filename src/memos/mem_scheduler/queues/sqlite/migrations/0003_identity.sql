-- What the memory store knows this file by; a file that is made anew is another queue.
ALTER TABLE counter ADD COLUMN queue_id TEXT NOT NULL DEFAULT '';
UPDATE counter SET queue_id = lower(hex(randomblob(16)));
