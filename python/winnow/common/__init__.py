"""What winnow's Python programs share: exit codes and the end of a program, safe output files, text for a terminal."""
