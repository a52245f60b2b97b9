"""An agent with tools: one trace a turn, with its model calls, tools, tokens and cost.

pip install 'msgtrace[integration]' 'msgflux[openai,httpx]'
export OPENAI_API_KEY=…
"""

from msgflux import Model, nn

from msgtrace.integration import quick_start


def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def add(a: int, b: int) -> int:
    """Sum of two numbers."""
    return a + b


with quick_start():
    model = Model.chat_completion("openai/gpt-4o-mini")
    agent = nn.Agent(name="weather_agent", model=model, tools=[get_weather, add])
    print(agent("What is the weather in Porto, and what is 20 + 22?"))
