"""Reinforcement learning from preferences: pure functions on rollouts of K lanes, and the loop that uses them."""
