"""Cubes as objects of their own: `memos.mem_cube.general.GeneralMemCube`, and the files they travel in."""
