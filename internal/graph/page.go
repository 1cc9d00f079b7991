package graph

import "strings"

// Page is one file: the picture, and a field that finds containers.
func Page(hosts []Host) string {
	return strings.NewReplacer("@STYLE@", pageStyle, "@PICTURE@", Picture(hosts), "@SCRIPT@", script).Replace(pageFrame)
}

const pageFrame = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Networks</title><style>@STYLE@</style></head><body>
<header><h1>Networks</h1><label>Find <input id="find" type="search" placeholder="name, address or port" autofocus></label> <output id="found"></output></header>
<main>
@PICTURE@</main>
<script>@SCRIPT@</script></body></html>
`

const pageStyle = `
body{margin:0;font:14px system-ui,sans-serif;background:#fff;color:#1f2733}
header{position:sticky;top:0;display:flex;gap:16px;align-items:baseline;padding:8px 16px;background:#fff;border-bottom:1px solid #c3c9d2}
h1{font-size:18px;margin:0}main{overflow:auto}input{font:inherit;width:16em}
.container.miss{opacity:.15}.container.hit rect{stroke:#b35900;stroke-width:2}
@media (prefers-color-scheme:dark){body,header{background:#14181e;color:#e3e8ef;border-color:#39424e}}
`

const script = `
const cards=[...document.querySelectorAll(".container")],field=document.getElementById("find");
field.addEventListener("input",()=>{const q=field.value.trim().toLowerCase();let n=0;
for(const c of cards){const hit=q!==""&&c.dataset.text.includes(q);c.classList.toggle("hit",hit);c.classList.toggle("miss",q!==""&&!hit);if(hit)n++}
document.getElementById("found").textContent=q===""?"":n+" found";
if(n>0&&q!=="")document.querySelector(".container.hit").scrollIntoView({block:"nearest"})});
`
