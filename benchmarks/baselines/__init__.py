"""Recommenders to compare with, written out or borrowed; none of them is part of the product."""
