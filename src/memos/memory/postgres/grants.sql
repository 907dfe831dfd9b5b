-- What the program's role may do. Run after every migration, as the owner; `memos.role` names the role.
DO $$
DECLARE
    role text := current_setting('memos.role');
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON meta, cube, item_key, item, lexicon, mention, vector,'
                   ' alias, working, state, mark, outbox, web_log, block, block_cube, block_item, prefix, prefix_item TO %I', role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON journal TO %I', role);
    EXECUTE format('GRANT SELECT ON migration TO %I', role);
    EXECUTE format('GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA %I TO %I', current_schema(), role);
    REVOKE EXECUTE ON FUNCTION enter_scope(text[]) FROM PUBLIC;
    EXECUTE format('GRANT EXECUTE ON FUNCTION enter_scope(text[]) TO %I', role);
    REVOKE EXECUTE ON FUNCTION postings(bigint, text[]), bearing_items(bigint, text[]) FROM PUBLIC;
    EXECUTE format('GRANT EXECUTE ON FUNCTION postings(bigint, text[]), bearing_items(bigint, text[]) TO %I', role);
    IF to_regclass('vector_index') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON vector_index TO %I', role);
    END IF;
END $$;
