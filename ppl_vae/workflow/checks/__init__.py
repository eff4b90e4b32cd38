"""One question each about a fitted model: gaps, calibration, active units, predictions, others."""
