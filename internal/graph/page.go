package graph

import "strings"

// Page is one file: the picture, and a field that finds containers.
func Page(hosts []Host) string { return pageOf(hosts, script) }

// LivePage is Page that takes the picture anew every few seconds, from graph.svg beside it.
func LivePage(hosts []Host) string { return pageOf(hosts, script+liveScript) }

func pageOf(hosts []Host, script string) string {
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
#state{margin-left:auto;color:#0b6b3a}#state.stale{color:#b3261e}
.container.miss{opacity:.15}.container.hit rect{stroke:#b35900;stroke-width:2}
@media (prefers-color-scheme:dark){body,header{background:#14181e;color:#e3e8ef;border-color:#39424e}}
`

const script = `
const find=()=>[...document.querySelectorAll(".container")],field=document.getElementById("find");let cards=find();
field.addEventListener("input",()=>{const q=field.value.trim().toLowerCase();let n=0;
for(const c of cards){const hit=q!==""&&c.dataset.text.includes(q);c.classList.toggle("hit",hit);c.classList.toggle("miss",q!==""&&!hit);if(hit)n++}
document.getElementById("found").textContent=q===""?"":n+" found";
if(n>0&&q!=="")document.querySelector(".container.hit").scrollIntoView({block:"nearest"})});
`

// liveScript leaves the picture as it is while nothing changes, and says when there is no answer.
const liveScript = `
let seen="";const state=document.createElement("output");state.id="state";state.textContent="live";document.querySelector("header").append(state);
setInterval(async()=>{if(document.hidden)return;try{const r=await fetch("graph.svg",{cache:"no-store"});if(!r.ok)throw new Error(r.status);
const now=await r.text();if(now!==seen){seen=now;document.querySelector("main").innerHTML=now;cards=find();field.dispatchEvent(new Event("input"))}
state.textContent="live";state.className=""}
catch(e){if(state.className===""){state.textContent="ln-agent does not answer: as of "+new Date().toLocaleTimeString();state.className="stale"}}},2000);
`
