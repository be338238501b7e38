"""Renders the templates and snippets below with transformers and writes chat_templates.json, which the tests read.

Run in an environment that has transformers:  python tests/golden/chat_templates.py
The templates are written for this test, in the manner of published model families.
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a careful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

HEADERS = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%Y") | length | string %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- A comment, cut with its line -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Digits of the year: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

INST = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if message.role == "user" or message.role == "assistant" and message.tool_calls is not defined %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate user/assistant/user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "x' ~ loop.index0 ~ '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + "}[/TOOL_RESULTS]" }}
    {%- endif %}
{%- endfor %}
"""

THINK = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- macro show(call, open='<tool_call>') %}
{{ open }}
{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}
</tool_call>
{%- endmacro %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- show(tool_call) }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

CONVERSATIONS = [
    [{"role": "user", "content": "  Hi there  "}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Ünïcode 👩‍💻?"}],
    [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>\neasy\n</think>\n\n4"},
        {"role": "user", "content": "And 3 + 3?"},
    ],
    [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2, "metric": True}}}],
        },
        {"role": "tool", "content": "rain, 4.5 °C"},
        {"role": "assistant", "content": "<think>ok</think>It rains."},
    ],
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city, \"now\"",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
]

# Small things, each with its own reason to go wrong.
SNIPPETS = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "  {% if true %}  x  {% endif %}  \n y",
    "x  {%- if true -%}  y  {%- endif -%}  z",
    "x\n  {%+ if true %}\n y{% endif +%}\nz",
    "{# c #}\nx{#- d -#}\n y",
    "{{ 1 }}\n{{ 2 }}\n\n",
    "{% raw %}{{ not }} {% this %}{% endraw %}|",
    "{%- raw -%}  a {%- endraw -%}  b",
    "{{ [1, 2.5, 'a', none, true, {'k': 'v\\'s'}] }} {{ (1,) }} {{ 'it\\'s' }} {{ ['it\\'s \"q\"', 'a\\nb'] }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1e3 }} {{ 1_000 }} {{ 10 / 5 }}",
    "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 'a' * 3 }} {{ [1] + [2] }} {{ 'a' ~ 1 ~ none ~ true }} {{ -2 ** 2 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'cat' }} {{ 3 not in [1, 2] }} {{ 'k' in {'k': 1} }} {{ not 1 == 2 }}",
    "{{ x }}|{{ x is defined }}|{{ x is undefined }}|{{ x | default('d') }}|{{ '' | default('e', true) }}|{{ none or 'f' }}",
    "{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ 'äöü'[1:] }}{{ [1,2,3][-2:] }}{{ [1,2,3][5:] }}{{ 'abc'[:-1] }}{{ [1,2,3,4,5][3:0:-2] }}",
    "{% for i in range(3) %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }},{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}{% for i in nothing %}x{% else %}undef{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}",
    "{% for i in range(10) if i % 2 %}{{ loop.index0 }}:{{ i }} {% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for x in ['a', 'b', 'c'] %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.cycle('o', 'e') }} {% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}",
    "{% set ns = namespace(a=1, b='t') %}{% for i in range(4) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, %}{{ t }}",
    "{% set body %} hello {{ 1 + 1 }} {% endset %}[{{ body }}]{% set b2 | upper | trim %} up {% endset %}[{{ b2 }}]",
    "{% macro m(a, b=2, c='x') %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro wrap(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call wrap('b') %}in{% endcall %}",
    "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}{% filter trim | lower %} ABC {% endfilter %}",
    "{% with a=1, b=2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% generation %}kept{% endgeneration %}",
    "{{ {'b': 1, 'a': [1, 2.0, none, true, 'é\\n']} | tojson }}{{ {'b': {}, 'a': [1, []]} | tojson(indent=2) }}{{ 'é<>&' | tojson }}",
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, {'a': 2}] | tojson(separators=(',', ':')) }} {{ 'é' | tojson(ensure_ascii=true) }}",
    "{{ ' a b ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ ' a '.strip() }}|{{ 'xay'.strip('xy') }}|{{ '  a'.lstrip() }}|{{ 'a  '.rstrip() }}",
    "{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a\\nb\\r\\nc'.splitlines() }}",
    "{{ 'abc'.startswith('a') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.upper() }}{{ 'ABC'.lower() }}{{ 'hello world'.title() }}{{ 'hELLO'.capitalize() }}",
    "{{ 'aXbXc'.replace('X', '-') }}{{ 'aXbXc'.replace('X', '-', 1) }}{{ 'aXb' | replace('X', '') }}{{ 'abcb'.find('b') }}{{ 'abcb'.rfind('b') }}{{ 'abcb'.count('b') }}{{ 'abc'.find('z') }}",
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A', 'c'] | sort }}{{ [3, 1, 2] | sort(reverse=true) }}{{ [1, 2, 3] | reverse | list }}{{ 'abc' | reverse }}",
    "{{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }}{{ [1, 2, 3] | length }}{{ 'äb' | length }}{{ {'a': 1} | length }}{{ [1, 2] | sum }}{{ [4, 2] | min }}{{ [4, 2] | max }}",
    "{{ ['a', 'b'] | join(', ') }}{{ [1, 2] | join }}{{ [{'n': 'x'}, {'n': 'y'}] | map(attribute='n') | join('+') }}{{ ['a', 'b'] | map('upper') | list }}",
    "{{ [{'r': 'u', 'n': 1}, {'r': 'a', 'n': 2}] | selectattr('r', 'equalto', 'u') | list }}{{ [{'r': 'u'}, {'r': 'a'}] | rejectattr('r', 'eq', 'u') | list }}{{ [1, 2, 3] | select('odd') | list }}{{ [0, 1] | reject | list }}",
    "{{ '12' | int }}{{ 'x' | int }}{{ 'x' | int(-1) }}{{ '3.7' | float }}{{ 3.7 | int }}{{ 2.5 | round }}{{ 3.14159 | round(2) }}{{ -3 | abs }}{{ 12 | string + 'x' }}",
    "{{ {'b': 2, 'a': 1} | dictsort }}{{ {'b': 2} | items | list }}{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('z') }}{{ {'a': 1}.get('z', 5) }}{{ {'a': 1, 'b': 2}.keys() | list }}{{ {'a': 1}.values() | list }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'hello world' | title }}|{{ 'hello' | capitalize }}|{{ [1, 1, 2] | unique | list }}",
    "{{ 1 is number }}{{ 'a' is string }}{{ [] is iterable }}{{ {} is mapping }}{{ none is none }}{{ 1 is none }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}{{ [] is sequence }}{{ 1 is odd }}{{ 4 is divisibleby 2 }}{{ 1 is in [1, 2] }}{{ 1 is not string }}{{ false is false }}{{ 1 is true }}",
    "{{ 'yes' if true else 'no' }}{{ 'yes' if false }}{{ 'a' if false else 'b' if false else 'c' }}",
    "{{ {'a': {'b': [1, {'c': 'deep'}]}}.a.b[1].c }}{{ [[1, 2], [3]][0].1 }}",
    "{{ 'a' 'b' \"c\" }}{{ '\\u00e9\\x41\\t|' }}{{ \"tab\\\\n\" }}",
    "{{ dict(a=1, b='x') }}{{ range(5, 1, -2) | list }}{{ range(2, 4) | list }}",
    "{%- if a is defined and a.b is defined -%}x{%- elif 1 -%}y{%- else -%}z{%- endif -%}",
    "{{ '%s' }}{{ \"{{\" }}{{ '}}' }}{{ {'a': {'b': 1}} }}",
    "{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e20 }} {{ 1e-7 }} {{ 100000000000000000 }} {{ 3.0 | string }} {{ true + 1 }}",
    "{{ messages[0].role.upper() ~ messages | length }}",
    "{% if not x %}a{% endif %}{% if x is not defined or x %}b{% endif %}{% if [] or {} or '' or 0 %}c{% else %}d{% endif %}",
    "line1\r\nline2{% if true %}\r\nx{% endif %}\r\n",
    "{{ messages[0]['missing'] }}|{{ messages[0].missing is defined }}|{{ messages[9] is defined }}",
    "{{- ' keep ' -}}   \n  next",
    "{% for m in messages -%}\n  {{ m.role }}\n{%- endfor %}",
    "{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}{{ 1 == 1.0 }}{{ 'a' == 1 }}{{ [1, 'a'] == [1, 'a'] }}{{ {'a': 1} == {'a': 1} }}{{ none == false }}",
    "{{ 'Hello'[1:3] | upper ~ '!' }}{{ ('a' ~ 'b') | upper }}{{ -1 | abs }}{{ not false and true }}",
]
FAILING = [
    "{{ x.y }}", "{{ x + 1 }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ raise_exception('no') }}", "{{ nothing() }}",
    "{% for %}", "{% endfor %}", "{{ 1", "{% if true %}", "{{ 'a }}", "{% unknown %}", "{{ x | nofilter }}",
    "{{ x is notest }}", "{# open", "{% set 1 = 2 %}", "{{ [1, 2 }}", "{{ 1 < 'a' }}", "{% break %}", "{{ m( }}",
    "{% set x.y = 1 %}", "{{ [].append(1) }}", "{{ x.y.z }}", "{{ }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
]


def render(template, **variables):
    return _compile_jinja_template(template).render(**variables)


def main():
    cases = []
    for name, template in [("chatml", CHATML), ("headers", HEADERS), ("inst", INST), ("think", THINK)]:
        for conversation in CONVERSATIONS:
            for prompt in [False, True]:
                for variables in [{}, {"tools": TOOLS, "enable_thinking": False}]:
                    case = {"name": name, "messages": conversation, "add_generation_prompt": prompt, "variables": variables}
                    values = {"tools": None, "documents": None, **variables}
                    values.update(messages=conversation, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                    try:
                        case["output"] = render(template, **values)
                    except Exception as error:
                        case["error"] = type(error).__name__
                    cases.append(case)
    messages = [{"role": "user", "content": "hi"}]
    snippets = [{"template": t, "output": render(t, messages=messages)} for t in SNIPPETS]
    for template in FAILING:
        try:
            raise SystemExit(f"{template!r} was rendered to {render(template, messages=messages)!r}")
        except Exception:
            pass
    golden = {
        "templates": {"chatml": CHATML, "headers": HEADERS, "inst": INST, "think": THINK},
        "cases": cases,
        "snippets": snippets,
        "failing": FAILING,
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(cases)} conversations, {len(snippets)} snippets")


if __name__ == "__main__":
    main()
