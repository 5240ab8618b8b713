"""winnow score: what the patterns of an evaluation wrote, judged by the metric that the calibration file names."""
