"""Evidence of a camera by simulation: probes until the alarm, false alarms in a year, and the limits that give both."""
