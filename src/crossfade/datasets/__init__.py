"""Items to embed: generated scenes, labelled images, image-text pairs, judged text."""
