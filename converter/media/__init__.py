"""Bytes to arrays and back, safe on hostile input. Knows no tracker and no trainer."""
