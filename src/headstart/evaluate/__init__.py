"""Arrays in, numbers out: metrics, intervals, calibration."""
