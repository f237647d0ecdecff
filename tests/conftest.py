from .stack.process import end_on_signals

end_on_signals()
