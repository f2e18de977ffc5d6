"""One upgrade from beginning to end on generated scenes and two small vision-language models."""
