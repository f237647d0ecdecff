"""Checks of docker-compose.yml and of the recipes for containers, with a real engine."""
