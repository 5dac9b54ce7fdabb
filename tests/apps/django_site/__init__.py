"""A Django project: one application with models, views of every kind, and the admin."""
