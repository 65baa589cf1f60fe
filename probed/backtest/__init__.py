"""What a policy would have told of recorded samples: replayed through the evaluators, before and after a change."""
