"""The workers of the peers' sides; nothing here imports tfrlhf."""
