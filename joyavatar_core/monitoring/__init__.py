"""Measure a running stream: drift, reports and plots."""
