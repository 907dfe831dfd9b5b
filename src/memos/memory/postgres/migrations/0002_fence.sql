-- Row-level security: a transaction sees the cubes of its scope, and without a scope none at all.
-- Two settings that last as long as the transaction say what the scope is: `memos.scope` (cube numbers, or *)
-- and `memos.names` (cube ids as a JSON array, or *). The role of the program is not the owner of the tables,
-- so the policies bind it; migrations and `memos backup` run as the owner.

CREATE FUNCTION enter_scope(names text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('memos.names', array_to_json(names)::text, true);
    PERFORM set_config('memos.scope', coalesce(string_agg(no::text, ','), ''), true)
    FROM cube WHERE id = ANY (names);
END $$;

CREATE FUNCTION scope_is_open() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('memos.scope', true) IS NOT DISTINCT FROM '*'
$$;
CREATE FUNCTION scope_cubes() RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT string_to_array(nullif(nullif(current_setting('memos.scope', true), '*'), ''), ',')::bigint[]
$$;
CREATE FUNCTION scope_names() RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT json_array_elements_text(
        nullif(nullif(current_setting('memos.names', true), '*'), '')::json))
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['item_key', 'item', 'lexicon', 'mention', 'vector', 'alias', 'working', 'state',
                                'journal'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY scope ON %I USING '
                       '((SELECT scope_is_open()) OR cube_no = ANY ((SELECT scope_cubes())::bigint[]))', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['outbox', 'web_log'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY scope ON %I USING '
                       '((SELECT scope_is_open()) OR cube_id = ANY ((SELECT scope_names())::text[]))', name);
    END LOOP;
END $$;
ALTER TABLE cube ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON cube USING
    ((SELECT scope_is_open()) OR id = ANY ((SELECT scope_names())::text[]));
-- Marks name messages and nothing of what is in them; still nobody reads them without having said what for.
ALTER TABLE mark ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON mark USING (coalesce(current_setting('memos.names', true), '') <> '');
