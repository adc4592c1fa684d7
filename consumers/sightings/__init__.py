"""Sightings: alerts on a class or group that cameras see, by the rules of users."""
