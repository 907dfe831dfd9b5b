-- A transaction sees the blocks, and the prefixes of blocks, all of whose cubes are in its scope. The functions
-- look past the fence: within it the cubes that would hide a block could not be seen.

CREATE FUNCTION block_in_scope(wanted bigint) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
    SELECT NOT EXISTS (SELECT 1 FROM block_cube WHERE block_no = wanted AND cube_id <> ALL (scope_names()))
$$;
CREATE FUNCTION namespace_in_scope(wanted text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
    SELECT NOT EXISTS (
        SELECT 1 FROM block JOIN block_cube ON block_cube.block_no = block.no
        WHERE block.namespace = wanted AND block_cube.cube_id <> ALL (scope_names()))
$$;

-- What belongs to no cube is still shown to nobody who has not said what for.
ALTER POLICY scope ON block USING
    ((SELECT scope_is_open()) OR (coalesce(current_setting('memos.names', true), '') <> '' AND block_in_scope(no)));
ALTER POLICY scope ON prefix USING
    ((SELECT scope_is_open())
     OR (coalesce(current_setting('memos.names', true), '') <> '' AND namespace_in_scope(namespace)));
ALTER POLICY scope ON block_cube USING
    ((SELECT scope_is_open()) OR cube_id = ANY ((SELECT scope_names())::text[]));
