"""What to say to whom, and why: campaigns, offers, audiences, touches, responses."""
