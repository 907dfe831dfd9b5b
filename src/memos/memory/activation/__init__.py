"""Activation memory: the memory block as a prefix that a model need not read again.

`base` is the protocol that every runtime fulfils, `layout` decides in which order memories stand, so that
the block stays the same from turn to turn. Importing this package loads no model and no numpy.
"""
