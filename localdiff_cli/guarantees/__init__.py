"""Promises with a number: what holds for new patients, proven on a site's own, whatever the networks are."""
