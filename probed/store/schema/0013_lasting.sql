-- Episodes of a day and longer, by their end: what was open at some time, although it had begun long before.
CREATE INDEX event_lasting ON event (resolved_at) WHERE resolved_at - opened_at >= 86400.0;
