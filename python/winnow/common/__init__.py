"""What winnow's Python programs share: safe output files, standard streams that may be lost, text for a terminal."""
