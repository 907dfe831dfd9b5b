-- The items of a cube that bear a term. The policy of `lexicon` would have them all read: whether arrays overlap is told by
-- an operator that is not leakproof, which PostgreSQL applies only to rows that the policy has passed, so not by the
-- index. These functions ask for the scope themselves and look past the policy; outside of it they find nothing.

CREATE FUNCTION postings(cube bigint, wanted text[])
    RETURNS TABLE (lexeme text, item_no bigint, count bigint, length bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    IF scope_is_open() OR cube = ANY (scope_cubes()) THEN
        RETURN QUERY
            SELECT bearing.lexeme, lexicon.item_no, bearing.count, lexicon.length
            FROM lexicon, unnest(lexicon.lexemes, lexicon.counts) AS bearing (lexeme, count)
            WHERE lexicon.cube_no = cube AND lexicon.lexemes && wanted AND bearing.lexeme = ANY (wanted);
    END IF;
END $$;

CREATE FUNCTION bearing_items(cube bigint, wanted text[])
    RETURNS TABLE (lexeme text, items bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    IF scope_is_open() OR cube = ANY (scope_cubes()) THEN
        RETURN QUERY
            SELECT bearing.lexeme, count(*)
            FROM lexicon, unnest(lexicon.lexemes) AS bearing (lexeme)
            WHERE lexicon.cube_no = cube AND lexicon.lexemes && wanted AND bearing.lexeme = ANY (wanted)
            GROUP BY bearing.lexeme;
    END IF;
END $$;
