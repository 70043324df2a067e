"""Measures of sets of pictures, over features that any network may have given; all in float64."""
