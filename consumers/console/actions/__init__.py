"""Actions and queries that pages and the REST API share: alerts, mutes, commands, replay, jobs, policies and rules."""
