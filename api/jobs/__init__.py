"""Jobs over HTTP: submitting, listing, watching, cancelling, and what they leave behind."""
