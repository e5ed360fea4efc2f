"""One rollout: prompts and seeds, step plans, micro-batches, scores."""
