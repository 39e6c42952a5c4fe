"""What a collection of images holds: search, duplicates, outliers, clusters, what to label first.

Functions of embeddings. Only `embedded` reads images, and keeps their embeddings for the next time.
"""
