"""Speed, memory and exactness, side by side with what a user would pick instead; each script is one command."""
